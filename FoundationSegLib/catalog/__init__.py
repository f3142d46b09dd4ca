"""Model cards, class lists and label sets."""

"""Values and rules: geometry, volumes, prompts, masks, cards. Standard library and numpy only."""

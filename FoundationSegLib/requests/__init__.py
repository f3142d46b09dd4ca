"""Requests, answers, and the one codec that turns them into documents and messages."""

"""Tells an AI-generated product photo from a photograph."""

__version__ = "0.1.0"

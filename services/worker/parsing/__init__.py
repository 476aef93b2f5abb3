"""Reasoning and tool calls out of the text that any engine makes. See docs/adr/0024."""

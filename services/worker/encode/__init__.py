"""Embeds and scores for gateways, one call at a time."""

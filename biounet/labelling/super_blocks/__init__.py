"""Exact stitching in bounded memory: each super-block on its own, then what lies on their faces is joined."""

"""Objects as outlines along the corners of their pixels, in the formats of other programs, and filled again."""

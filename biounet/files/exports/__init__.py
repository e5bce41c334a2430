"""Results in the formats of other programs: what is written is a `LabelledImage`, each format a line of `FORMATS`."""

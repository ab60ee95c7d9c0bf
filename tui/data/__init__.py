"""What the screens show, read through `traces` and `analysis`; no widgets here."""

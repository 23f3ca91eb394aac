"""Parts that all reports share: frame of the page, charts, tables."""

"""The page that all reports share: frame, charts, tables. It knows no benchmark and no traits."""

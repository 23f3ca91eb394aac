"""The page that all reports share: frame, charts, documents. It knows no benchmark and no traits."""

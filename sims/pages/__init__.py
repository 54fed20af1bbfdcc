"""Pages: tables and figures as HTML, Markdown, CSV, SVG and PNG."""

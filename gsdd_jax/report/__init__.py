"""Reports of runs as one self-contained HTML file, one module per section.

`source` reads a work directory; `document` renders the sections with `style.css` and `script.js` to
`report.html`. The same files give the same bytes.
"""

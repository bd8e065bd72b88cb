"""Runs as one HTML file that needs nothing else: what each section shows, one file each.

`source` reads a work directory, `document` puts what the sections return into `report.html`, with
`style.css` and `script.js`. The same files give the same bytes.
"""

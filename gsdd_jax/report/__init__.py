"""Runs as one HTML file that needs nothing else: what each part shows, one file each.

`source` reads a work directory, `document` puts the parts together, and `template.html`,
`style.css` and `script.js` are what they are put into. The same files give the same bytes.
"""

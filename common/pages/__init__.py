"""Pages that a browser on this machine shows: their look, and the rules that keep everyone else out.

sessions   one-time links, and the sessions that they open
guard      the web application around pages: links, sessions, forms, headers
rendering  templates with all values escaped
pictures   curves, bars and squares as SVG
serving    a page on loopback, until it is left alone
events     news for pages that are open, as server-sent events

`base.html`, `style.css` and `live.js` are the look and the only script. Nothing comes from another host.
"""

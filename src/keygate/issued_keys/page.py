"""`/receive`: the page behind a one-time link. The token stands after the # and so in no server's log; nothing is opened before the holder
says so, because programs that only preview links follow them."""

from __future__ import annotations

import base64
import hashlib

from fastapi.responses import HTMLResponse

from keygate.kit.routes import PUBLIC, Routes

routes = Routes("", tag="issued keys")

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:4rem auto;padding:0 1rem}pre{white-space:pre-wrap;word-break:break-all}"
)
_SCRIPT = """
const button = document.querySelector('button'), out = document.querySelector('pre'), note = document.querySelector('p');
button.addEventListener('click', async () => {
  button.disabled = true;
  const token = location.hash.slice(1);
  history.replaceState(null, '', location.pathname);
  try {
    const answer = await fetch('/api/v1/keys/deliveries', {
      method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify({token}), credentials: 'omit'});
    const told = await answer.json();
    if (!answer.ok) { note.textContent = told.detail; return; }
    note.textContent = 'This is shown once. Copy it now:';
    out.textContent = Object.entries(told.env).map(([name, value]) => name + '=' + value).join('\\n');
  } catch { note.textContent = 'KeyGate can not be reached; open the link again.'; }
});
"""
_PAGE = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Your key</title><style>{_STYLE}</style></head><body><h1>Your key</h1>
<p>This link shows a vendor's key once, and then never again.</p><button>Show the key</button><pre></pre>
<noscript>Without JavaScript: <code>keygate receive LINK</code></noscript><script>{_SCRIPT}</script></body></html>
"""


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_HEADERS = {
    "content-security-policy": f"default-src 'none'; connect-src 'self'; script-src {_source(_SCRIPT)}; style-src {_source(_STYLE)}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@routes.get("/receive", permission=PUBLIC, response_class=HTMLResponse)
async def receive_page() -> HTMLResponse:
    """The page behind a one-time link. Holds nothing of a key; its script asks `POST /keys/deliveries` when the holder says so."""
    return HTMLResponse(_PAGE, headers=_HEADERS)

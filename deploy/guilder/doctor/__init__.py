"""One doctor for sites and servers: looks at everything and says what is wrong.

`network`, `machine`, `versions`, `rows` and `keys` look; `site` and `server` say at
what; `finding` is what they say, `letter` what a site asks its IT for. Nothing here
changes a setting, charges a budget or sends more than a handshake and a head.
"""

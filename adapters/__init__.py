"""The optional web adapter: everything that knows HTTP, Flask or gunicorn lives here."""

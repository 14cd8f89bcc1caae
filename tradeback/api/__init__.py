"""The REST interface: Falcon under gunicorn. `app.py` has the table of routes; it reads the stores only."""

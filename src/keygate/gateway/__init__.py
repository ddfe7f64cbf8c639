"""The request path. Plain Python on httptools and uvloop: no ORM, no FastAPI, no pydantic. Start reading at `pipeline.py`."""

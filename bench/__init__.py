"""`make bench`: CPU time per request and per streamed chunk, and added latency, against nginx in the same run."""

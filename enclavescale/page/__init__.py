"""The page of `enclavescale serve`: one aiohttp application over the state of `stream_jobs.web`."""

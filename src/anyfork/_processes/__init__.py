"""A process on the owner's side: its start, its session and sockets, its end."""

"""One process, from the owner's side: starting it, its session and sockets, its end."""

"""What the owner and its processes speak: frames, channel ends with descriptors, and what differs between systems."""

"""The protocols between the owner and its processes: frames, channels with descriptors, and platform differences."""

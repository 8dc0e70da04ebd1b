"""A job of ours inside RELION: what it leaves in its folder, and how it is stopped."""

"""The sync client: its thread, its loop, its generator, and what others run it in."""

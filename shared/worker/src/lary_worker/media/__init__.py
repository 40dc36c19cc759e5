"""Whether a media file is whole: what its container promises, compared with what is there.

Nothing here makes a pixel or chooses a frame, so none of it is part of a store's fingerprint: it only refuses.
What can be seen in which container, and what cannot: `docs/media.md`.
"""

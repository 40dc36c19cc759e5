"""Formats of robot datasets as their users have them on disk. Each module has two functions:

`find(root, camera, action)` lists the episodes (`trajectories.Source`) without reading their steps, and
`read(cut)` reads the steps of one (`trajectories.Steps`), in a process of its own.
"""

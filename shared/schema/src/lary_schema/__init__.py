"""The contract between the orchestrator, the model images and the probe image.

Nothing here imports torch, zarr or numpy at module level except `lary_schema.store.writer` and
`lary_schema.store.reader`, which need the extra `lary-schema[store]`.
"""

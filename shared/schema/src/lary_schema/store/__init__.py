"""The latent store: one Zarr v3 group per extraction. `layout` needs no zarr, `writer` and `reader` do."""

"""CT volumes on disk: layouts, NIfTI, geometry, Hounsfield units."""

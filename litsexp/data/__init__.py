"""Files and Hounsfield units: CT cases, the phantom, the slice store, patient-level splits."""

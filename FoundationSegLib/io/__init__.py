"""Files and DICOM folders to volumes and label maps, and back. SimpleITK; no torch, no Slicer, no Qt."""

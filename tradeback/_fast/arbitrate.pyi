# Compiled functions only; other compiled modules reach them through arbitrate.pxd.

"""Small NIfTI files whose header can say anything."""

import gzip
import struct

import nibabel as nib
import numpy as np

from biounet.files import ReadOptions

VOLUME = ReadOptions(dims=3)
VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)  # (z, y, x)
U, F = struct.Struct("<h"), struct.Struct("<f")
FIELDS = {"dim": (40, U), "datatype": (70, U), "bitpix": (72, U), "pixdim": (76, F), "vox_offset": (108, F),
          "slope": (112, F), "inter": (116, F), "qform": (252, U), "sform": (254, U),
          "quaternion": (256, F), "srow": (280, F)}  # fmt: skip


def nifti(path, array=VOXELS, affine=None, unit="mm", **fields):
    """Write an array (z, y, x) with an affine of (x, y, z), and overwrite fields of the header: {(name, n): value}."""
    image = nib.Nifti1Image(array.T, np.diag([0.5, 0.75, 2, 1]) if affine is None else affine)
    image.header.set_xyzt_units(unit)
    data = bytearray(image.to_bytes())
    for name, value in fields.items():
        name, _, number = name.partition("__")
        at, kind = FIELDS[name]
        kind.pack_into(data, at + int(number or 0) * kind.size, value)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path

"""Files to Mammograms: DICOM known by content, and grey PNG, TIFF and PGM pictures."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import numpy as np

from detector.errors import BadPixels, NoPixelSpacing, NotAMammogram, ReadError
from detector.read import grey
from detector.read.dicom import DicomFile, looks_like_dicom, open_dicom
from detector.read.frames import find_format, read_frame
from detector.read.identity import find_side, find_view, identify
from detector.read.picture import Picture, open_picture, read_picture
from detector.read.spacing import Given, Spacing, check_given, find_spacing
from detector.read.subject import refuse_all_but_mammograms
from detector.records import Identity, Mammogram
from detector.settings import ReadSettings

__all__ = ["read_identity", "read_mammogram"]

PathLike = str | os.PathLike[str]


def read_mammogram(
    path: PathLike,
    spacing_mm: float | tuple[float, float] | None = None,
    settings: ReadSettings | None = None,
    *,
    frame: int = 0,
    force_spacing: bool = False,
) -> Mammogram:
    """Read a mammogram.

    Parameters
    ----------
    path : str or path
        A DICOM file, whatever its name, or a grey PNG, TIFF or PGM picture.
    spacing_mm : float or tuple of float, optional
        Size of a pixel in mm, or of (rows, columns), for a file that states none; used only where it is plausible.
    settings : ReadSettings, optional
    frame : int
        Number of the frame, from 1; 0 takes the only one, or the first.
    force_spacing : bool
        Take `spacing_mm` also where the file states another.

    Returns
    -------
    Mammogram
        Its pixels are float32, bright where tissue is dense: for presentation the values of the file, rescaled, and
        inverted if they are shown inverted; for processing the negative logarithm of the exposure.

    Raises
    ------
    NotAMammogram
        If it is something else, which a run over a folder skips; its message names what it is.
    NoPixelSpacing
        If the size of a pixel is neither stated nor given, or is not plausible.
    BadPixels
        If its pixels are missing, cut short, too many, or damaged.
    ReadError
        If it cannot be opened, or its header is damaged.
    MemoryError
        If the machine has too little memory for an image within the limits.
    """
    settings = settings or ReadSettings()
    with _opened(path) as file:
        source, identity = _identify(file, Given.of(spacing_mm, force_spacing), settings)
        if not 0 <= frame <= identity.n_frames:
            raise BadPixels(f"it has {identity.n_frames} frames, and none of number {frame}")
        if isinstance(source, DicomFile):
            mammogram = _read_dicom(source, identity, max(frame, 1), settings)
        else:
            mammogram = _read_picture(file, source, identity, settings)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return dataclasses.replace(mammogram, identity=_named(mammogram.identity, os.fspath(path), sha256))


def read_identity(
    path: PathLike,
    spacing_mm: float | tuple[float, float] | None = None,
    settings: ReadSettings | None = None,
    *,
    force_spacing: bool = False,
) -> Identity:
    """Return what the header of a file says, without reading its pixels.

    Parameters
    ----------
    path, spacing_mm, settings, force_spacing
        As of `read_mammogram`.

    Returns
    -------
    Identity
        `sha256` is empty, and so is `image_id` where it would be that hash; `n_frames` says how many can be read.

    Raises
    ------
    ReadError
        As `read_mammogram` would, as far as the header tells.
    """
    with _opened(path) as file:
        _, identity = _identify(file, Given.of(spacing_mm, force_spacing), settings or ReadSettings())
    return dataclasses.replace(identity, path=os.fspath(path))


@contextmanager
def _opened(path: PathLike) -> Iterator[BufferedReader]:
    """Open a file, and let nothing but a ReadError that names it come out, whatever its bytes."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise NotAMammogram("no regular file; give the files of the images")
        with warnings.catch_warnings(), Path(path).open("rb") as file:
            # what pydicom warns of quotes values of the header
            warnings.simplefilter("ignore")
            yield file
    except ReadError as error:
        raise type(error)(f"{path}: {error}") from error.__cause__
    except OSError as error:
        raise ReadError(f"{path}: it cannot be opened: {(error.strerror or 'unknown cause').lower()}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise ReadError(f"{path}: it cannot be read ({type(error).__name__}); get a fresh copy") from error


def _identify(file: BinaryIO, given: Given, settings: ReadSettings) -> tuple[DicomFile | Picture, Identity]:
    """Return the open source, and what its header says."""
    if not looks_like_dicom(file.read(132)):
        picture = open_picture(file)
        try:
            spacing = check_given(given, picture.shape, settings)
        except NoPixelSpacing as error:
            raise NotAMammogram(str(error)) from None
        return picture, _sized(Identity(image_id=""), picture.shape, spacing)
    dicom = open_dicom(file)
    side, view = find_side(dicom.header), find_view(dicom.header)
    refuse_all_but_mammograms(dicom, side, view)
    shape = find_format(dicom, settings).shape
    identity = identify(dicom, side, view)
    spacing = find_spacing(dicom.header, shape, "magnification" in identity.view_modifiers, given, settings)
    if spacing.warning:
        dicom.header.note(spacing.warning)
    return dicom, _sized(dataclasses.replace(identity, warnings=tuple(dicom.header.notes)), shape, spacing)


def _sized(identity: Identity, shape: tuple[int, int], spacing: Spacing) -> Identity:
    return dataclasses.replace(
        identity,
        rows=shape[0],
        cols=shape[1],
        spacing_mm=spacing.mm,
        spacing_source=str(spacing.source),
        sizes_known=spacing.sizes_known,
        magnification_factor=spacing.magnification,
    )


def _named(identity: Identity, path: str, sha256: str) -> Identity:
    """Return the identity with its path, its hash, and names that no two frames share."""
    image_id = identity.image_id or sha256
    exposure_id = identity.exposure_id or sha256[:32]
    if identity.n_frames > 1:
        image_id, exposure_id = (f"{name}_f{identity.frame}" for name in (image_id, exposure_id))
    return dataclasses.replace(identity, path=path, sha256=sha256, image_id=image_id, exposure_id=exposure_id)


def _read_dicom(dicom: DicomFile, identity: Identity, frame: int, settings: ReadSettings) -> Mammogram:
    header = dicom.header
    form = find_format(dicom, settings)
    stored = read_frame(dicom, form, frame - 1)
    padding = grey.padding_mask(stored, form, header)
    values = grey.modality_values(stored, form, header)
    processing = identity.presentation_intent == "processing"
    pixels, top = grey.dense_is_bright(values, header, processing, padding)
    window = None if processing else grey.find_window(header, form, top)
    if grey.air_is_bright(pixels, padding):
        header.note(grey.POLARITY)
    if identity.n_frames > 1:
        header.note(f"frame {frame} of {identity.n_frames}")
        identity = dataclasses.replace(identity, frame=frame)
    return Mammogram(pixels, dataclasses.replace(identity, warnings=tuple(header.notes)), window, padding)


def _read_picture(file: BinaryIO, picture: Picture, identity: Identity, settings: ReadSettings) -> Mammogram:
    pixels = read_picture(file, picture, settings).astype(np.float32)
    if grey.air_is_bright(pixels):
        identity = dataclasses.replace(identity, warnings=(grey.POLARITY,))
    return Mammogram(pixels, identity)

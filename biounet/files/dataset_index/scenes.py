"""Each image of a file that holds several, such as the positions of a plate, as an image of its own."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from biounet.core import InputError
from biounet.files.axes import ReadOptions
from biounet.files.dataset_index.cases import FoundImage
from biounet.files.dataset_index.channel_files import join_channel_files
from biounet.files.dataset_index.names import STORES, name_part, stem_of
from biounet.files.formats.scenes import Scene, choose_scenes
from biounet.files.isolation.client import ReaderPool

# Files of which each is asked for its images; others only if scenes are chosen: most hold one, and there may be many.
_MAY_HOLD_SEVERAL = (".lif", ".nd2", ".czi", ".ome.tif", ".ome.tiff", *STORES)


def resolve_images(images: Sequence[FoundImage], options: ReadOptions, readers: ReaderPool) -> list[FoundImage]:
    """Return images as they are read: each scene of a file by itself, and files that are one channel each joined.

    An image is called like its file, ``_s``, the number of its scene from 0, and its name if it has one:
    ``plate_s3_A1``. `options.scene` chooses scenes; a file that lacks one of them gets a problem.
    """
    return join_channel_files(list_images(images, readers, options.scene), options, readers)


def list_images(images: Sequence[FoundImage], readers: ReaderPool, wanted: str = "") -> list[FoundImage]:
    """Return each scene of a file as an image, as `resolve_images` does."""
    asked = [image for image in images if _may_hold_several(image, wanted)]
    with ThreadPoolExecutor(max(1, min(readers.size, len(asked)))) as pool:
        try:
            listed = list(pool.map(lambda image: _scenes_of(image, wanted, readers), asked))
        except BaseException:  # such as Ctrl-C, after which no further file is asked
            pool.shutdown(cancel_futures=True)
            raise
    scenes = dict(zip(map(id, asked), listed, strict=True))
    return [scene for image in images for scene in scenes.get(id(image), [image])]


def _may_hold_several(image: FoundImage, wanted: str) -> bool:
    is_one = image.problem or image.others or image.scene
    return not is_one and bool(wanted or image.path.name.lower().endswith(_MAY_HOLD_SEVERAL))


def _scenes_of(image: FoundImage, wanted: str, readers: ReaderPool) -> list[FoundImage]:
    """Return the scenes of a file that are wanted; the image as it is if the file cannot be read."""
    try:
        with readers.borrow() as reader:
            scenes = reader.list_scenes(image.path)
    except InputError:  # it is raised again when the image is read, which then fails by itself
        return [image]
    try:
        chosen = choose_scenes(scenes, wanted, image.path)
    except InputError as error:
        return [replace(image, problem=f"{error.cause} (hint: {error.hint})" if error.hint else error.cause)]
    return [image] if len(scenes) < 2 else [_as_image(image, scene) for scene in chosen]


def scene_stem(image: FoundImage) -> str:
    """Return the name of a scene by its file and number alone: ``plate_s3``."""
    return f"{stem_of(image.path)}_s{image.scene}"


def _as_image(image: FoundImage, scene: Scene) -> FoundImage:
    image = replace(image, scene=scene.key)
    name, stem = name_part(scene.name), scene_stem(image)
    return replace(image, relative=image.relative.with_name(f"{stem}_{name}" if name else stem))

"""Use the client that openapi-python-client generates: `use_python.py URL PICTURE…`."""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from ambience_client import Client
from ambience_client.api.v1 import (
    add_image,
    delete_image,
    get_image,
    get_thumbnail,
    list_images,
    search_upload,
)
from ambience_client.models.add_answer import AddAnswer
from ambience_client.models.add_image_files_body import AddImageFilesBody
from ambience_client.models.image_answer import ImageAnswer
from ambience_client.models.image_list import ImageList
from ambience_client.models.problem import Problem
from ambience_client.models.search_results import SearchResults
from ambience_client.models.search_upload_body import SearchUploadBody
from ambience_client.types import UNSET, File

Answer = TypeVar("Answer")


def of(kind: type[Answer], answer: object) -> Answer:
    """The answer, which must be of this kind."""
    assert isinstance(answer, kind), answer
    return answer


def file(path: str) -> File:
    """A picture as a part of a form."""
    return File(BytesIO(Path(path).read_bytes()), "document", "application/octet-stream")


def listed(client: Client) -> list[int]:
    """The ids of all images, read page by page."""
    ids: list[int] = []
    cursor = None
    while True:
        page = of(ImageList, list_images.sync(client=client, limit=1, cursor=cursor or UNSET))
        ids += [image.image_id for image in page.images]
        cursor = page.next_cursor
        if not cursor:
            return ids


def main(url: str, *pictures: str) -> None:
    """Add the pictures, search by the first, list, get and delete them."""
    client = Client(url)
    ids = []
    for path in pictures:
        body = AddImageFilesBody(image=file(path), metadata=json.dumps({"path": path}))
        ids.append(of(AddAnswer, add_image.sync(client=client, body=body)).image_id)
    query = SearchUploadBody(image=[file(pictures[0])], query=json.dumps({"k": 3}))
    hits = of(SearchResults, search_upload.sync(client=client, body=query)).hits
    assert hits[0].image_id == ids[0]
    assert hits[0].retrievers["phash"].distance == 0
    image = of(ImageAnswer, get_image.sync(ids[0], client=client))
    assert image.metadata["path"] == pictures[0]
    thumbnail = of(File, get_thumbnail.sync(ids[0], client=client))
    assert thumbnail.payload.read(2) == b"\xff\xd8"
    assert listed(client) == ids
    for image_id in ids:
        assert delete_image.sync_detailed(image_id, client=client).status_code == 204
    gone = of(Problem, get_image.sync(ids[0], client=client))
    assert gone.type_ == "/problems/image-not-found"
    assert listed(client) == []


if __name__ == "__main__":
    main(*sys.argv[1:])

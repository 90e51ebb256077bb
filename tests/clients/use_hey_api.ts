// Use the client that @hey-api/openapi-ts generates: use_hey_api.js URL PICTURE...
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { addImage, deleteImage, getImage, getThumbnail, listImages, searchUpload } from "./hey_api";
import { client } from "./hey_api/client.gen";

const [url, ...pictures] = process.argv.slice(2);
const file = (path: string) => new Blob([readFileSync(path)]);
client.setConfig({ baseUrl: url });

async function listed(): Promise<number[]> {
  const ids: number[] = [];
  let cursor: string | null | undefined;
  do {
    const { data } = await listImages({ query: { limit: 1, cursor }, throwOnError: true });
    ids.push(...data.images.map((image) => image.image_id));
    cursor = data.next_cursor;
  } while (cursor);
  return ids;
}

async function main(): Promise<void> {
  const ids: number[] = [];
  for (const path of pictures) {
    const body = { image: file(path), metadata: JSON.stringify({ path }) };
    const { data } = await addImage({ body, throwOnError: true });
    ids.push(data.image_id);
  }
  const body = { image: [file(pictures[0])], query: JSON.stringify({ k: 3 }) };
  const [first] = (await searchUpload({ body, throwOnError: true })).data.hits;
  assert.equal(first.image_id, ids[0]);
  assert.equal(first.retrievers["phash"].distance, 0);
  const path = { image_id: ids[0] };
  const { data: image } = await getImage({ path, throwOnError: true });
  assert.equal(image.metadata["path"], pictures[0]);
  const { data: thumbnail } = await getThumbnail({ path, throwOnError: true });
  assert.ok(thumbnail instanceof Blob && thumbnail.size > 0);
  assert.deepEqual(await listed(), ids);
  for (const image_id of ids) await deleteImage({ path: { image_id }, throwOnError: true });
  const { error } = await getImage({ path });
  assert.equal(error!.type, "/problems/image-not-found");
  assert.deepEqual(await listed(), []);
}

main();

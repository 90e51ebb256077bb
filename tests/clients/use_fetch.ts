// Use openapi-fetch with the types that openapi-typescript generates: use_fetch.js URL PICTURE...
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { paths } from "./schema";

const [url, ...pictures] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url });
const file = (path: string) => new Blob([readFileSync(path)]);

/** A form of these fields; a list is sent as parts of the same name. */
function form(fields: object): FormData {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields))
    for (const one of Array.isArray(value) ? value : [value]) body.append(name, one);
  return body;
}

async function listed(): Promise<number[]> {
  const ids: number[] = [];
  let cursor: string | null | undefined;
  do {
    const { data } = await client.GET("/v1/images", { params: { query: { limit: 1, cursor } } });
    ids.push(...data!.images.map((image) => image.image_id));
    cursor = data!.next_cursor;
  } while (cursor);
  return ids;
}

async function main(): Promise<void> {
  const ids: number[] = [];
  for (const path of pictures) {
    const { data } = await client.POST("/v1/images", {
      body: { image: file(path), metadata: JSON.stringify({ path }) },
      bodySerializer: form,
    });
    ids.push(data!.image_id);
  }
  const found = await client.POST("/v1/search/upload", {
    body: { image: [file(pictures[0])], query: JSON.stringify({ k: 3 }) },
    bodySerializer: form,
  });
  const [first] = found.data!.hits;
  assert.equal(first.image_id, ids[0]);
  assert.equal(first.retrievers["phash"].distance, 0);
  const named = { params: { path: { image_id: ids[0] } } };
  const image = await client.GET("/v1/images/{image_id}", named);
  assert.equal(image.data!.metadata["path"], pictures[0]);
  const thumbnail = await client.GET("/v1/images/{image_id}/thumbnail", { ...named, parseAs: "blob" });
  assert.ok(thumbnail.data!.size > 0);
  assert.deepEqual(await listed(), ids);
  for (const image_id of ids) {
    const answer = await client.DELETE("/v1/images/{image_id}", { params: { path: { image_id } } });
    assert.equal(answer.response.status, 204);
  }
  const gone = await client.GET("/v1/images/{image_id}", named);
  assert.equal(gone.error!.type, "/problems/image-not-found");
  assert.deepEqual(await listed(), []);
}

main();

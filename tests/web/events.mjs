/** Waiting for what a client tells, without sleeping. */

/** The next event of that name that fits, as its first argument. */
export function next(client, name, fits = () => true) {
  return new Promise((resolve) => {
    const off = client.on(name, (...told) => {
      if (!fits(...told)) return;
      off();
      resolve(told.length > 1 ? told : told[0]);
    });
  });
}

/** Resolves in that state, at once where it is in it. */
export async function inState(client, state) {
  if (client.state !== state) await next(client, "state", (told) => told.state === state);
}

/** So many updates from now on, as [symbol, price, volume]. */
export function updates(client, count) {
  return new Promise((resolve) => {
    const got = [];
    const off = client.on("update", (symbol, price, volume) => {
      got.push([symbol, price, volume]);
      if (got.length < count) return;
      off();
      resolve(got);
    });
  });
}

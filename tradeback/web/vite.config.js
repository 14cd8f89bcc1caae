// The page, bundled with hashed names into dist/, and beside it client.js and datafeed.js, with what they import, as they
// stand in src/, under names that stay: they are ES modules for use without the page.
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { defineConfig } from "vite";

const AS_THEY_STAND = [
  "client.js",
  "closecodes.js",
  "datafeed.js",
  "figures.js",
  "frames.js",
  "livebars.js",
  "serverclock.js",
];
const source = (name) => fileURLToPath(new URL(`src/${name}`, import.meta.url));

const asTheyStand = {
  name: "as-they-stand",
  generateBundle() {
    for (const fileName of AS_THEY_STAND.filter((name) => existsSync(source(name)))) {
      this.emitFile({ type: "asset", fileName, source: readFileSync(source(fileName), "utf8") });
    }
  },
};

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "/",
  plugins: [asTheyStand],
  build: {
    target: "es2022",
    outDir: "dist",
    emptyOutDir: true,
    // Neither data: addresses nor inline scripts: the page's Content-Security-Policy takes none.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});

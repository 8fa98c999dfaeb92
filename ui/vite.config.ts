import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// `npm run dev` serves the page with a real daemon behind it, over its Unix socket.
const socketPath = process.env.HIVEMIND_SOCKET ?? "/run/hivemind/api.sock";
const daemon = { target: { socketPath, host: "localhost", port: 80 } };

export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: "dist/site",
    target: "es2022",
    cssTarget: ["chrome123", "firefox121", "safari17.5"],
    // The page's policy lets nothing in that is written inline.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: { host: "127.0.0.1", proxy: { "/v1": daemon, "/openapi.json": daemon } },
});

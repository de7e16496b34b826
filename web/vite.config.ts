import { defineConfig } from "vite";

export default defineConfig({
  base: "./", // so that the pages work below any path
  build: {
    target: "es2022",
    rolldownOptions: { input: ["index.html", "figure.html"] },
  },
  worker: { format: "es" },
});

/** Starts the page: checks the browser, loads the model, and connects buttons to what they do. */

import { wantedProvider, whatIsMissing } from "./capability.js";
import { Controller } from "./controller.js";
import { EngineClient } from "./engine_client.js";
import { listenToKeys } from "./keys.js";
import { readManifest } from "./manifest.js";
import { Panel } from "./panel.js";
import { listenToPointer } from "./pointing.js";
import { View } from "./view.js";

const find = (id) => document.getElementById(id);
const addressOf = (path) => new URL(path, document.baseURI).href;

async function loadModel(engine, panel) {
  const description = await readManifest(addressOf("model/"));
  const wanted = {
    description,
    runtime: addressOf("runtime/"),
    provider: wantedProvider(location.search),
  };
  panel.say("Loading the model…");
  const started = await engine.load(wanted, (done, all) => {
    panel.setProgress(done / all);
    const megabytes = (bytes) => (bytes / 1e6).toFixed(0);
    panel.say(
      done < all ? `Loading the model: ${megabytes(done)} of ${megabytes(all)} MB` : "Starting…",
    );
  });
  panel.setModel(description, started);
  return description;
}

function connectTools(controller, panel) {
  const does = {
    point: () => chooseTool("point", "box"),
    box: () => chooseTool("box", "point"),
    include: () => chooseLabel(false),
    exclude: () => chooseLabel(true),
    size: () => controller.otherSize(),
    everything: () => controller.everything(),
    undo: () => controller.undo(),
    clear: () => controller.clear(),
    png: () => controller.savePng(),
    json: () => controller.saveJson(),
  };
  for (const [id, act] of Object.entries(does)) find(id).addEventListener("click", act);

  function chooseTool(tool, other) {
    controller.tool = tool;
    find("canvas").dataset.tool = tool;
    panel.press(tool, other);
  }

  function chooseLabel(isNegative) {
    controller.isNegative = isNegative;
    panel.press(...(isNegative ? ["exclude", "include"] : ["include", "exclude"]));
  }
}

/** Open photos however they come; those that come before the model are opened once it is here. */
function connectPhotos(controller, panel, loaded) {
  const open = (file, name) => {
    panel.say(`${name} is opened as soon as the model is here.`);
    return loaded.then(
      () => controller.open(file, name),
      () => {}, // what went wrong with the model is on the page
    );
  };
  const input = find("file");
  input.addEventListener("change", () => {
    if (input.files[0]) open(input.files[0], input.files[0].name);
    input.value = ""; // so that the same file can be chosen again
  });
  for (const button of document.querySelectorAll("[data-choose]")) {
    button.addEventListener("click", () => input.click());
  }
  for (const button of document.querySelectorAll("[data-sample]")) {
    button.addEventListener("click", () => openSample(button.dataset.sample));
  }
  const drops = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!drops(event)) return;
    event.preventDefault();
    document.body.dataset.drop = "over";
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) delete document.body.dataset.drop;
  });
  document.addEventListener("drop", (event) => {
    if (!drops(event)) return;
    event.preventDefault();
    delete document.body.dataset.drop;
    openFirst(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => openFirst(event.clipboardData?.files ?? []));

  function openFirst(files) {
    const [file] = files;
    if (file) open(file, file.name || "photo");
  }

  /** Open a photo that lies beside the page. */
  async function openSample(name) {
    try {
      const answer = await fetch(addressOf(`samples/${name}`));
      if (!answer.ok) throw new Error(`there is no ${name} here (${answer.status})`);
      await open(await answer.blob(), name);
    } catch (error) {
      panel.fail(error.message);
    }
  }
}

async function start() {
  const panel = new Panel();
  panel.setState("loading");
  const missing = whatIsMissing();
  if (missing) throw new Error(missing);
  const engine = new EngineClient();
  const view = new View(find("canvas"));
  const controller = new Controller(engine, view, panel);
  connectTools(controller, panel);
  const forgetCursor = listenToKeys(find("canvas"), controller, view);
  listenToPointer(find("canvas"), controller, view, forgetCursor);
  controller.onPhoto = () => {
    forgetCursor();
    find("canvas").focus({ preventScroll: true });
  };
  new ResizeObserver(() => view.fit()).observe(find("stage"));
  const loaded = loadModel(engine, panel);
  connectPhotos(controller, panel, loaded);
  controller.setModel(await loaded);
}

start().catch((error) => {
  const panel = new Panel();
  panel.setState("failed");
  panel.say("");
  panel.fail(error.message);
});

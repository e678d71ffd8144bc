"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const [stage, picture, heat, status, opacity] = ["stage", "picture", "heat", "status", "opacity"].map($);
  // The file that is looked at, what was found in it, and the heatmaps that came so far, by class.
  let file, address, heatmaps, asking;

  const say = (text, wrong) => {
    status.textContent = text;
    status.classList.toggle("error", Boolean(wrong));
  };

  const ask = async (cam) => {
    asking?.abort();
    const mine = asking = new AbortController();
    const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
    const query = new URLSearchParams({ top: 5, cam });
    const response = await fetch("/predict?" + query, {
      method: "POST", body: file, headers: { "Content-Type": type }, signal: mine.signal,
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    heatmaps.set(answer.cam.class, answer.cam);
    return answer;
  };

  // Runs what asks the server; only the last question's answer or error is shown.
  const trying = async (work) => {
    try {
      await work();
    } catch (error) {
      if (error.name === "AbortError") return;
      const gone = error instanceof TypeError;
      say(gone ? "The server does not answer." : "Not classified: " + error.message + ".", true);
    }
  };

  // From nothing over yellow to red: how much evidence is said by the opacity too.
  const colour = (value) => [255, 225 * (1 - value) ** 1.2, 30 * (1 - value), 255 * Math.min(1, 1.3 * value)];

  const draw = async (cam, width, height) => {
    const grey = new Image();
    grey.src = cam.png;
    await grey.decode();
    const small = new OffscreenCanvas(grey.width, grey.height);
    const pen = small.getContext("2d");
    pen.drawImage(grey, 0, 0);
    const pixels = pen.getImageData(0, 0, grey.width, grey.height);
    for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set(colour(pixels.data[i] / 255), i);
    pen.putImageData(pixels, 0, 0);
    // As many pixels as the longer side of the picture, between what is sharp and what is quick.
    const scale = Math.min(1200, Math.max(600, width, height)) / Math.max(width, height);
    heat.width = Math.max(1, Math.round(width * scale));
    heat.height = Math.max(1, Math.round(height * scale));
    const brush = heat.getContext("2d");
    brush.imageSmoothingQuality = "high";
    const box = [cam.left, cam.top, cam.width, cam.height].map((side) => side * scale);
    brush.drawImage(small, ...box);
    const framed = cam.width < width - 1 || cam.height < height - 1;
    $("framed").hidden = !framed;
    if (framed) {
      brush.lineWidth = 2;
      for (const [ink, dash] of [["#000", []], ["#fff", [8, 8]]]) {
        brush.strokeStyle = ink;
        brush.setLineDash(dash);
        brush.strokeRect(box[0] + 1, box[1] + 1, box[2] - 2, box[3] - 2);
      }
    }
  };

  const list = ({ predictions, cam, width, height }) => {
    const rows = predictions.map(({ class: name, probability }) => {
      const row = document.createElement("label");
      row.className = "class";
      const choice = document.createElement("input");
      Object.assign(choice, { type: "radio", name: "class", checked: name === cam.class });
      choice.addEventListener("change", () => trying(async () => {
        if (!heatmaps.has(name)) await ask(name);
        await draw(heatmaps.get(name), width, height);
      }));
      const label = document.createElement("b");
      label.textContent = name;
      const percent = document.createElement("output");
      percent.textContent = (100 * probability).toFixed(2) + "%";
      const bar = document.createElement("i");
      bar.style.setProperty("--share", 100 * probability + "%");
      row.append(choice, label, percent, bar);
      return row;
    });
    $("classes").replaceChildren(...rows);
  };

  const look = (dropped) => trying(async () => {
    file = dropped;
    heatmaps = new Map();
    $("classes").replaceChildren();
    heat.width = heat.width;
    for (const id of ["stage", "controls", "hint", "unshown"]) $(id).hidden = true;
    say("Looking at " + (file.name || "the picture") + " …");
    if (address) URL.revokeObjectURL(address);
    picture.src = address = URL.createObjectURL(file);
    const shown = picture.decode().then(() => true, () => false);
    const answer = await ask("top");
    const { width, height } = answer;
    stage.style.aspectRatio = width + " / " + height;
    stage.style.width = `min(100%, calc(62vh * ${width / height}))`;
    list(answer);
    await draw(answer.cam, width, height);
    const visible = await shown;
    if (file !== dropped) return;
    picture.hidden = !visible;
    picture.style.imageRendering = Math.max(width, height) < 128 ? "pixelated" : "auto";
    $("unshown").hidden = visible;
    for (const id of ["stage", "controls", "hint"]) $(id).hidden = false;
    document.body.classList.add("shown");
    say(`${file.name || "The picture"}, ${width} × ${height} pixels`);
  });

  $("file").addEventListener("change", ({ target }) => {
    if (target.files[0]) look(target.files[0]);
    // The same file may be chosen again.
    target.value = "";
  });
  addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData.files[0]) look(clipboardData.files[0]);
  });
  // All of the page takes a file, so that one that is dropped beside the frame does not replace the page.
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
  addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) document.body.classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    const [dropped] = event.dataTransfer.files;
    if (dropped) look(dropped);
    else say("That was no file.", true);
  });
  const fade = () => {
    heat.style.opacity = opacity.value / 100;
    $("percent").textContent = opacity.value + "%";
  };
  opacity.addEventListener("input", fade);
  fade();

  trying(async () => {
    const { model, weights, classes, image_size: side } = await (await fetch("/model")).json();
    document.title = model + " · Kestrel";
    $("model").textContent = model;
    $("about").textContent = `${classes.length} classes, ${side} × ${side} pixels, ${weights}`;
  });
})();

// The viewer shows one image: zoom and pan, the outlines of its objects, and the figures of the one below the pointer.
(() => {
  const byId = (id) => document.getElementById(id);
  const dialog = byId("viewer"), stage = byId("stage"), context = stage.getContext("2d"), hover = byId("hover");
  const palettes = JSON.parse(byId("palettes").textContent);
  const units = { um: "µm", mm: "mm", um2: "µm²", mm2: "mm²", um3: "µm³", mm3: "mm³" };
  let row = null, view = null, shown = true, marked = 0, received = null, drawing = 0;
  let zoom = 1, left = 0, top = 0; // pixels of the screen per pixel of the labels, and where these begin

  // Each image has a file of data, a script that calls this function; in a report of a single file it stands in the page.
  window.biounetView = (data) => { received = data; };

  function readData(row) {
    const inside = byId("view-" + row.dataset.number);
    if (inside) return Promise.resolve(JSON.parse(inside.textContent));
    return new Promise((done, fail) => {
      const script = document.createElement("script");
      script.onload = () => { script.remove(); done(received); };
      script.onerror = () => { script.remove(); fail(new Error("not found: " + decodeURI(row.dataset.view) + "_view.js")); };
      script.src = row.dataset.view + "_view.js";
      document.head.append(script);
    });
  }

  async function unpack(data) {
    const packed = Uint8Array.from(atob(data.data), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    let at = 0;
    const take = (count, Kind) => { // the lowest bytes of all numbers, then the next ones
      const bytes = new Uint8Array(4 * count);
      for (let plane = 0; plane < 4; plane++) for (let i = 0; i < count; i++) bytes[4 * i + plane] = planes[at++];
      return new Kind(bytes.buffer);
    };
    const lengths = take(data.runs, Int32Array), values = take(data.runs, Int32Array);
    const [width, height] = data.size, labels = new Int32Array(width * height);
    for (let run = 0, pixel = 0; run < lengths.length; run++) labels.fill(values[run], pixel, pixel += lengths[run]);
    const sizes = data.objects === undefined ? null : take(data.objects, Float32Array);
    const confidence = data.confidence ? take(data.objects, Float32Array) : null;
    return { ...data, width, height, labels, sizes, confidence };
  }

  function loadPicture(url) {
    return new Promise((done, fail) => {
      const picture = new Image();
      picture.onload = () => done(picture);
      picture.onerror = () => fail(new Error("not found: " + decodeURI(url)));
      picture.src = url;
    });
  }

  const colours = () => palettes[view.bright ? 1 : 0];
  const differs = (x, y, label) =>
    x < 0 || y < 0 || x >= view.width || y >= view.height || view.labels[y * view.width + x] !== label;

  // Outlines of one pixel, for a zoom at which pixels cannot be told apart.
  function drawOutlines() {
    const { width, height, labels } = view, canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
    const packed = colours().map((hex) => { // red is the lowest byte
      const rgb = parseInt(hex, 16);
      return (0xff000000 | ((rgb & 255) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;
    });
    for (let y = 0, at = 0; y < height; y++) for (let x = 0; x < width; x++, at++) {
      const label = labels[at];
      if (label > 0 && (differs(x - 1, y, label) || differs(x + 1, y, label) || differs(x, y - 1, label) || differs(x, y + 1, label)))
        pixels[at] = packed[(label - 1) % packed.length];
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  // Outlines as lines of the screen just inside of each object, for a zoom at which pixels are squares.
  function drawEdges([x0, y0, x1, y1]) {
    const paths = new Map(), width = 1.6 / zoom, half = width / 2;
    for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) {
      const label = view.labels[y * view.width + x];
      if (label <= 0) continue;
      const lines = [];
      if (differs(x, y - 1, label)) lines.push([x, y + half, x + 1, y + half]);
      if (differs(x, y + 1, label)) lines.push([x, y + 1 - half, x + 1, y + 1 - half]);
      if (differs(x - 1, y, label)) lines.push([x + half, y, x + half, y + 1]);
      if (differs(x + 1, y, label)) lines.push([x + 1 - half, y, x + 1 - half, y + 1]);
      if (!lines.length) continue;
      const colour = (label - 1) % colours().length;
      if (!paths.has(colour)) paths.set(colour, new Path2D());
      for (const [a, b, c, d] of lines) { paths.get(colour).moveTo(a, b); paths.get(colour).lineTo(c, d); }
    }
    context.lineWidth = width;
    for (const [colour, path] of paths) {
      context.strokeStyle = "#" + colours()[colour];
      context.stroke(path);
    }
  }

  function markObject([x0, y0, x1, y1]) {
    context.fillStyle = view.bright ? "rgba(0, 0, 0, .3)" : "rgba(255, 255, 255, .35)";
    for (let y = y0; y < y1; y++) for (let x = x0, start = -1; x <= x1; x++) {
      const inside = x < x1 && view.labels[y * view.width + x] === marked;
      if (inside && start < 0) start = x;
      if (!inside && start >= 0) { context.fillRect(start, y, x - start, 1); start = -1; }
    }
  }

  function draw() {
    drawing = 0;
    const ratio = window.devicePixelRatio || 1, width = stage.clientWidth, height = stage.clientHeight;
    stage.width = width * ratio;
    stage.height = height * ratio;
    if (!view) return;
    context.setTransform(zoom * ratio, 0, 0, zoom * ratio, left * ratio, top * ratio);
    context.imageSmoothingEnabled = zoom * ratio < 4;
    context.drawImage(view.picture, 0, 0, view.width, view.height);
    const limit = (value, most) => Math.max(0, Math.min(most, value));
    const visible = [limit(Math.floor(-left / zoom), view.width), limit(Math.floor(-top / zoom), view.height),
      limit(Math.ceil((width - left) / zoom), view.width), limit(Math.ceil((height - top) / zoom), view.height)];
    if (shown && zoom * ratio < 1.8) context.drawImage(view.outlines ??= drawOutlines(), 0, 0);
    else if (shown) drawEdges(visible);
    if (marked) markObject(visible);
    showScale(width);
  }

  const redraw = () => { drawing ||= requestAnimationFrame(draw); };

  function showScale(width) {
    byId("scale").hidden = !view.pixel;
    if (!view.pixel) return;
    const most = view.pixel / zoom * Math.min(160, width / 3), power = 10 ** Math.floor(Math.log10(most));
    const length = Math.max(...[1, 2, 5].map((factor) => factor * power).filter((size) => size <= most * (1 + 1e-9)));
    byId("scale-bar").style.width = length / view.pixel * zoom + "px";
    byId("scale-text").textContent = Number(length.toPrecision(1)) + " " + units[view.unit];
  }

  function fit() {
    zoom = Math.min(stage.clientWidth / view.width, stage.clientHeight / view.height);
    left = (stage.clientWidth - view.width * zoom) / 2;
    top = (stage.clientHeight - view.height * zoom) / 2;
    redraw();
  }

  function zoomBy(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    if (!view) return;
    const now = Math.max(0.05, Math.min(60, zoom * factor));
    left = x - (x - left) * now / zoom;
    top = y - (y - top) * now / zoom;
    zoom = now;
    redraw();
  }

  // What is known of the object or class of a label.
  function describe(label) {
    if (view.names) return view.names[label] || "class " + label;
    if (!view.sizes) return "class " + label;
    const [, unit] = view.column.split("_"), pixels = view.column.startsWith("area") ? "px" : "voxels";
    const parts = ["object " + label, Number(view.sizes[label - 1].toPrecision(4)) + " " + (units[unit] || pixels)];
    if (view.confidence) parts.push("confidence " + view.confidence[label - 1].toFixed(2));
    return parts.join(" · ");
  }

  function showHover(x, y) {
    const px = Math.floor((x - left) / zoom), py = Math.floor((y - top) / zoom);
    const inside = view && px >= 0 && py >= 0 && px < view.width && py < view.height;
    const label = inside ? view.labels[py * view.width + px] : 0;
    hover.hidden = label <= 0;
    if (label > 0) {
      hover.textContent = describe(label);
      hover.style.left = Math.max(4, Math.min(x + 14, stage.clientWidth - hover.offsetWidth - 4)) + "px";
      hover.style.top = Math.max(4, Math.min(y + 16, stage.clientHeight - hover.offsetHeight - 4)) + "px";
    }
    if (label !== marked) { marked = label; redraw(); }
  }

  function findObject() {
    const label = Number(byId("object").value);
    if (!view || !(label > 0)) return;
    let x0 = view.width, x1 = -1, y0 = view.height, y1 = -1;
    for (let y = 0, at = 0; y < view.height; y++) for (let x = 0; x < view.width; x++, at++) {
      if (view.labels[at] !== label) continue;
      x0 = Math.min(x0, x); x1 = Math.max(x1, x); y0 = Math.min(y0, y); y1 = Math.max(y1, y);
    }
    note(x1 < 0 ? "object " + label + " is not seen here" : view.note);
    if (x1 < 0) return;
    zoom = Math.min(20, Math.max(zoom, Math.min(stage.clientWidth, stage.clientHeight) / (6 * Math.max(x1 - x0, y1 - y0, 1))));
    left = stage.clientWidth / 2 - (x0 + x1 + 1) / 2 * zoom;
    top = stage.clientHeight / 2 - (y0 + y1 + 1) / 2 * zoom;
    showHover(stage.clientWidth / 2, stage.clientHeight / 2);
    marked = label;
    redraw();
  }

  function note(text) {
    byId("viewer-note").hidden = !text;
    byId("viewer-note").textContent = text;
  }

  function viewNote(view) {
    const parts = [];
    const [width] = view.source || [view.width];
    if (width > view.width) parts.push("shown at 1/" + Math.round(width / view.width) + " of its size");
    if (view.hidden > 0) parts.push(view.hidden + " of " + view.objects + " objects are too small to be seen at this size");
    return parts.join("; ");
  }

  const inOrder = () => Array.from(byId("images").tBodies[0].rows).filter((row) => !row.hidden && row.dataset.view !== undefined);

  function showAbout() {
    const rows = inOrder(), at = rows.indexOf(row);
    byId("viewer-name").textContent = row.dataset.name;
    byId("viewer-number").textContent = at + 1 + " of " + rows.length;
    byId("previous").disabled = at <= 0;
    byId("next").disabled = at < 0 || at + 1 >= rows.length;
    const badge = row.querySelector(".badge");
    byId("viewer-status").className = badge.className;
    byId("viewer-status").textContent = badge.textContent;
    byId("viewer-message").textContent = row.dataset.message;
    const figures = Array.from(row.querySelectorAll("td.figure")).filter((cell) => cell.dataset.key !== "");
    byId("viewer-figures").textContent = figures.map((cell) => cell.dataset.label + " " + cell.textContent).join("  ·  ");
    byId("viewer-files").replaceChildren(...Array.from(row.querySelectorAll(".files a"), (link) => link.cloneNode(true)));
  }

  async function open(wanted) {
    row = wanted;
    view = null;
    marked = 0;
    hover.hidden = true;
    byId("scale").hidden = true;
    note("");
    if (!dialog.open) { dialog.showModal(); stage.focus(); }
    showAbout();
    redraw();
    try {
      const data = await readData(wanted), [unpacked, picture] = await Promise.all([
        unpack(data), loadPicture(data.picture || wanted.dataset.view + "_view.webp")]);
      if (row !== wanted) return; // the next image was asked for meanwhile
      view = Object.assign(unpacked, { picture, note: viewNote(unpacked) });
    } catch (error) {
      if (row === wanted) note(error.message);
      return;
    }
    byId("find").hidden = !view.sizes;
    note(view.note);
    fit();
    dialog.dataset.shown = wanted.dataset.name; // for tests
  }

  function step(by) {
    const rows = inOrder(), next = rows[rows.indexOf(row) + by];
    if (next) open(next);
  }

  function toggle() {
    shown = !shown;
    byId("outlines").setAttribute("aria-pressed", String(shown));
    redraw();
  }

  byId("images").addEventListener("click", (event) => {
    const link = event.target.closest("a.open"), wanted = link && link.closest("tr");
    if (!wanted || wanted.dataset.view === undefined || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(wanted);
  });
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("larger").addEventListener("click", () => zoomBy(1.5));
  byId("smaller").addEventListener("click", () => zoomBy(1 / 1.5));
  byId("fit").addEventListener("click", () => view && fit());
  byId("outlines").addEventListener("click", toggle);
  byId("object").addEventListener("change", findObject);
  byId("close").addEventListener("click", () => dialog.close());
  document.addEventListener("keydown", (event) => { // of the document: a button that is disabled loses the focus
    if (!dialog.open || event.target === byId("object") || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), "+": () => zoomBy(1.5), "=": () => zoomBy(1.5),
      "-": () => zoomBy(1 / 1.5), 0: () => view && fit(), o: toggle }[event.key];
    if (act) { act(); event.preventDefault(); }
  });
  const pointers = new Map();
  const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    showHover(event.offsetX, event.offsetY);
  });
  stage.addEventListener("pointermove", (event) => {
    const last = pointers.get(event.pointerId), now = { x: event.offsetX, y: event.offsetY };
    if (!last) return showHover(now.x, now.y);
    const before = pointers.size === 2 ? spread() : 0;
    pointers.set(event.pointerId, now);
    if (before > 0) { zoomBy(spread() / before, now.x, now.y); return; }
    left += now.x - last.x;
    top += now.y - last.y;
    redraw();
  });
  const release = (event) => pointers.delete(event.pointerId);
  stage.addEventListener("pointerup", release);
  stage.addEventListener("pointercancel", release);
  stage.addEventListener("pointerleave", () => { hover.hidden = true; if (marked) { marked = 0; redraw(); } });
  stage.addEventListener("dblclick", (event) => zoomBy(2, event.offsetX, event.offsetY));
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), event.offsetX, event.offsetY);
  }, { passive: false });
  new ResizeObserver(() => view && fit()).observe(stage);
})();

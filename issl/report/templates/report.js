// The table of runs: sorted by a heading, and searched.
const list = document.getElementById("list");
if (list) {
  const body = list.tBodies[0];
  const rows = [...body.rows];
  const search = document.getElementById("search");
  const value = (row, column) => row.cells[column].textContent;
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // what is not there comes last, in both directions
    const numbers = [Number(a), Number(b)];
    return numbers.some(Number.isNaN) ? a.localeCompare(b, "en", { numeric: true }) : numbers[0] - numbers[1];
  };
  [...list.tHead.rows[0].cells].forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of list.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        return x === "" || y === "" || up ? compare(x, y) : compare(y, x);
      });
      body.append(...rows);
    });
  });
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    document.getElementById("count").value = `${shown} of ${rows.length} rows`;
  });
}

// The curves: one run at a time, unpacked when it is chosen.
const choice = document.getElementById("curve");
if (choice) {
  const frame = document.getElementById("frame");
  const picture = document.getElementById("picture");
  const [least, most, step] = [1, 8, 1.5];
  let scale = 1;
  const show = async () => {
    const name = choice.value;
    const packed = document.querySelector(`[data-curve="${CSS.escape(name)}"]`).textContent;
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const svg = new Blob([await new Response(unpacked).arrayBuffer()], { type: "image/svg+xml" });
    if (name !== choice.value) return; // another run was chosen meanwhile
    URL.revokeObjectURL(picture.src);
    picture.src = URL.createObjectURL(svg);
    picture.alt = `Training curves of ${name}`;
  };
  const zoom = (to) => {
    const before = scale;
    scale = Math.min(most, Math.max(least, to));
    const centre = [frame.scrollLeft + frame.clientWidth / 2, frame.scrollTop + frame.clientHeight / 2];
    picture.style.setProperty("--scale", scale);
    frame.scrollTo(
      (centre[0] * scale) / before - frame.clientWidth / 2,
      (centre[1] * scale) / before - frame.clientHeight / 2,
    );
    document.getElementById("zoom").value = `${Math.round(100 * scale)} %`;
  };
  choice.addEventListener("change", show);
  document.getElementById("larger").addEventListener("click", () => zoom(scale * step));
  document.getElementById("smaller").addEventListener("click", () => zoom(scale / step));
  frame.addEventListener("keydown", (event) => {
    if (event.key === "+" || event.key === "=") zoom(scale * step);
    else if (event.key === "-") zoom(scale / step);
    else if (event.key === "0") zoom(1);
    else return;
    event.preventDefault();
  });
  show();
}

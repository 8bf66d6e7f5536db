// What an element says of itself: in a box when it is pointed at, or reached with the arrow keys. Without this script the browser shows titles.
(() => {
  "use strict";
  const box = document.body.appendChild(document.createElement("div"));
  Object.assign(box, { id: "tip", hidden: true });
  box.setAttribute("role", "status");

  for (const title of document.querySelectorAll("svg title")) {
    title.parentElement.dataset.tip = title.textContent;
    title.remove();
  }
  for (const element of document.querySelectorAll("[title]")) {
    element.dataset.tip = element.title;
    element.removeAttribute("title");
  }

  let shown = null;
  const hide = () => {
    box.hidden = true;
    shown = null;
  };
  const show = (element) => {
    shown = element;
    box.textContent = element.dataset.tip;
    box.hidden = false;
    const at = element.getBoundingClientRect();
    const size = box.getBoundingClientRect();
    const left = Math.min(Math.max(at.left + at.width / 2 - size.width / 2, 8), document.documentElement.clientWidth - size.width - 8);
    const above = at.top - size.height - 8;
    box.style.transform = `translate(${Math.round(left)}px, ${Math.round(above > 8 ? above : at.bottom + 8)}px)`;
  };
  document.addEventListener("pointerover", (event) => {
    const element = event.target instanceof Element && event.target.closest("[data-tip]");
    if (element) show(element);
    else hide();
  });
  const follow = () => (shown && "current" in shown.dataset ? show(shown) : hide());
  document.addEventListener("scroll", follow, { passive: true, capture: true });

  // the arrow keys go through the marks of a drawing: by rows and columns where it has them, else in order
  for (const svg of document.querySelectorAll("figure svg")) {
    const marks = [...svg.querySelectorAll("[data-tip]")];
    if (!marks.length) continue;
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("aria-label", `${svg.getAttribute("aria-label")}. Arrow keys read the values.`);
    let current = null;
    const go = (mark) => {
      if (current) delete current.dataset.current;
      current = mark;
      if (!mark) return hide();
      mark.dataset.current = "";
      mark.scrollIntoView({ block: "nearest", inline: "nearest" });
      show(mark);
    };
    const at = (row, column) => marks.find((mark) => mark.dataset.at === `${row} ${column}`);
    const next = (key) => {
      if (key === "Home") return marks[0];
      if (key === "End") return marks.at(-1);
      const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[key];
      if (!current) return marks[0];
      if ("at" in current.dataset) {
        const [row, column] = current.dataset.at.split(" ").map(Number);
        return at(row + down, column + right) ?? current;
      }
      return marks[marks.indexOf(current) + down + right] ?? current;
    };
    svg.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return go(null);
      if (!/^(Arrow|Home|End)/.test(event.key)) return;
      event.preventDefault();
      go(next(event.key));
    });
    svg.addEventListener("blur", () => go(null));
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });

  // what is folded is printed all the same
  const folded = () => document.querySelectorAll("details:not([open]):not(.bulk)");
  addEventListener("beforeprint", () => folded().forEach((details) => Object.assign(details, { open: true }).setAttribute("data-folded", "")));
  addEventListener("afterprint", () => document.querySelectorAll("[data-folded]").forEach((details) => {
    details.open = false;
    details.removeAttribute("data-folded");
  }));

  // which section is being read
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((seen) => {
    for (const entry of seen) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  document.querySelectorAll("section").forEach((section) => watch.observe(section));
})();

"use strict";
// The page is whole without this: it only shows an element's words at once, and by touch too.
(() => {
  const hover = document.createElement("div");
  hover.id = "hover";
  hover.hidden = true;
  document.body.append(hover);
  for (const title of document.querySelectorAll(".tip > title")) {
    const part = title.parentNode;
    part.dataset.tip = title.textContent;
    part.setAttribute("aria-label", title.textContent);
    title.remove();
  }
  const show = (event) => {
    const part = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    hover.hidden = !part;
    if (!part) return;
    hover.textContent = part.dataset.tip;
    const { width, height } = hover.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - width - 8);
    const above = event.clientY - height - 14;
    hover.style.left = Math.max(8, left) + "px";
    hover.style.top = (above < 8 ? event.clientY + 18 : above) + "px";
  };
  addEventListener("pointermove", show, { passive: true });
  addEventListener("pointerdown", show, { passive: true });
  addEventListener("scroll", () => { hover.hidden = true; }, { passive: true });
  document.addEventListener("pointerleave", () => { hover.hidden = true; });
})();
